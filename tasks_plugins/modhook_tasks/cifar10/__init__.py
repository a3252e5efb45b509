"""CIFAR-10: which weights does one class need?"""
