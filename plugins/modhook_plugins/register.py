"""Specs of modhook's own networks, analyses, figures, samplers, protocols and trackers."""

from __future__ import annotations

from modhook.plugin.hookspecs import Spec, hookimpl

_HERE = "modhook_plugins"


@hookimpl
def modhook_models() -> list[Spec]:
    """Networks made of stock torch layers."""
    return [
        Spec("fnn", "Fully connected network with ReLU", f"{_HERE}.networks.fnn:FNN"),
        Spec("cnn", "Convolutions with max-pooling, for small images", f"{_HERE}.networks.cnn:CNN"),
        Spec("resnet", "Residual network for small images; ResNet-110 by default", f"{_HERE}.networks.resnet:ResNet"),
        Spec(
            "seq2seq_lstm",
            "LSTM encoder-decoder for sequence to sequence tasks",
            f"{_HERE}.networks.seq2seq_lstm:Seq2SeqLSTM",
        ),
        Spec(
            "seq2seq_transformer",
            "Transformer encoder-decoder for sequence to sequence tasks",
            f"{_HERE}.networks.seq2seq_transformer:Seq2SeqTransformer",
        ),
        Spec(
            "lstm",
            "LSTM layers with a linear readout, for vectors or sequences of vectors",
            f"{_HERE}.networks.lstm:LSTM",
        ),
    ]


@hookimpl
def modhook_analyses() -> list[Spec]:
    """What is computed from finished masks."""
    return [
        Spec(
            "sharing",
            "Shared weights, IoU and IoMin between the masks of all stages",
            f"{_HERE}.analyses.sharing:Sharing",
        ),
        Spec(
            "inverse",
            "Scores under the inverted masks: what is left without the module",
            f"{_HERE}.analyses.inverse:Inverse",
        ),
        Spec(
            "trained_on",
            "Scores of each mask on items that it was learned on: a mask that fails these shows nothing elsewhere",
            f"{_HERE}.analyses.trained_on:TrainedOn",
        ),
        Spec(
            "class_removal",
            "Confusion per class, and what a removed class and the others lose",
            f"{_HERE}.analyses.class_removal:ClassRemoval",
        ),
        Spec(
            "logit_adjustment",
            "Whether a removed class is lost or outvoted: what it loses with a constant added to its logit",
            f"{_HERE}.analyses.logit_adjustment:LogitAdjustment",
        ),
        Spec(
            "size_curve",
            "Score against size: cuts through the ranking of each stage's logits",
            f"{_HERE}.analyses.size_curve:SizeCurve",
        ),
        Spec(
            "random",
            "Scores of random masks with as many weights of each tensor",
            f"{_HERE}.analyses.random_masks:RandomMasks",
        ),
        Spec(
            "magnitude",
            "Scores of the largest weights, as many as each mask keeps",
            f"{_HERE}.analyses.magnitude_masks:MagnitudeMasks",
        ),
        Spec(
            "own_removed",
            "Scores without the weights that one function keeps alone, and without as many at random",
            f"{_HERE}.analyses.own_removed:OwnRemoved",
        ),
        Spec(
            "seed_ceiling",
            "IoU of masks of one function over mask seeds, beside that of two functions and chance",
            f"{_HERE}.analyses.seed_ceiling:SeedCeiling",
        ),
        Spec("stability", "IoU of two masks of the same function", f"{_HERE}.analyses.stability:Stability"),
        Spec(
            "gradient_cosine",
            "Loss gradients with and without masked late layers",
            f"{_HERE}.analyses.gradient_cosine:GradientCosine",
        ),
        Spec(
            "mask_histogram",
            "Distribution of the control's keep-probabilities",
            f"{_HERE}.analyses.mask_histogram:MaskHistogram",
        ),
        Spec(
            "half_mask",
            "Scores with the control's mask on the early or on the late tensors only",
            f"{_HERE}.analyses.half_mask:HalfMask",
        ),
        Spec(
            "operation_confusion",
            "Which operation's result is written under each mask, and under its inverse",
            f"{_HERE}.analyses.operation_confusion:OperationConfusion",
        ),
        Spec(
            "transfer_sharing",
            "Share of weights that earlier masks use in each new mask",
            f"{_HERE}.analyses.transfer_sharing:TransferSharing",
        ),
        Spec(
            "removed_output",
            "Output weights of each token that a mask drops",
            f"{_HERE}.analyses.removed_output:RemovedOutput",
        ),
        Spec(
            "mask_images",
            "Pictures of every tensor: weights of one function, of several, of none",
            f"{_HERE}.analyses.mask_images:MaskImages",
        ),
        Spec(
            "layers",
            "Share of weights that each mask keeps in each part of each layer: a large network in one table",
            f"{_HERE}.analyses.layers:Layers",
        ),
        Spec(
            "heads",
            "Share of weights that each mask keeps of each head of each attention",
            f"{_HERE}.analyses.layers:Heads",
        ),
    ]


@hookimpl
def modhook_figures() -> list[Spec]:
    """What is drawn from cubes."""
    figures = f"{_HERE}.figures"
    return [
        Spec(
            "addmul_performance",
            "add/mul: accuracy on each operation's problems under the control, add and mul masks, and without their weights",
            f"{figures}.performance:AddMulPerformance",
        ),
        Spec(
            "operation_confusion",
            "add/mul: which operation's result is produced under each mask, and without its weights",
            f"{figures}.operation_confusion:OperationConfusion",
        ),
        Spec(
            "addmul_overlap",
            "add/mul: IoU and IoMin of the two operations' masks per layer",
            f"{figures}.overlap:AddMulOverlap",
        ),
        Spec(
            "controls",
            "Each mask beside its controls: score at equal size, size at an equal score",
            f"{figures}.controls:Controls",
        ),
        Spec("parts", "Weights of exactly these functions, for every subset of them (UpSet)", f"{figures}.parts:Parts"),
        Spec(
            "seed_ceiling",
            "IoU of masks of one function over mask seeds beside that of two functions and chance, per function and tensor",
            f"{figures}.seed_ceiling:SeedCeiling",
        ),
        Spec("kept_weights", "Weights kept per layer and stage", f"{figures}.kept_weights:KeptWeights"),
        Spec(
            "sharing_size",
            "add/mul: shared weights against network size (several cubes or a sweep)",
            f"{figures}.sharing_size:SharingSize",
        ),
        Spec(
            "beta_sensitivity",
            "add/mul: accuracy and sharing against beta (a sweep of masks.beta)",
            f"{figures}.beta_sensitivity:BetaSensitivity",
        ),
        Spec(
            "tuple_performance",
            "Double addition: accuracy under the control's and each pair's mask, and without their weights",
            f"{figures}.performance:TuplePerformance",
        ),
        Spec(
            "tuple_overlap",
            "Double addition: IoU and IoMin of the two sums' masks per layer",
            f"{figures}.overlap:TupleOverlap",
        ),
        Spec(
            "half_mask",
            "Accuracy lost under the early or the late half of the control's mask (several cubes)",
            f"{figures}.half_mask:HalfMask",
        ),
        Spec(
            "mask_histogram",
            "Distribution of the control's keep-probabilities (several cubes)",
            f"{figures}.mask_histogram:MaskHistogram",
        ),
        Spec(
            "scan_accuracy",
            "SCAN: accuracy on each split, the control's mask against the split's own",
            f"{figures}.scan_accuracy:ScanAccuracy",
        ),
        Spec(
            "removed_output",
            "SCAN: output weights that a split's mask drops, per token",
            f"{figures}.removed_output:RemovedOutput",
        ),
        Spec(
            "scan_baselines",
            "SCAN: own masks against networks trained from scratch (scan and scan_baselines cubes)",
            f"{figures}.scan_baselines:ScanBaselines",
        ),
        Spec(
            "maths_hard",
            "Mathematics: accuracy on hard questions before masking, under the control's and the easy mask (several cubes)",
            f"{figures}.maths_hard:MathsHard",
        ),
        Spec(
            "class_confusion",
            "Class removal: the control's confusion, and what each removed class changes, with spread",
            f"{figures}.class_removal:ClassConfusion",
        ),
        Spec(
            "class_drops",
            "Class removal: relative drop per removed class, and largest other drop over it (several cubes)",
            f"{figures}.class_drops:ClassDrops",
        ),
        Spec(
            "drop_statistics",
            "Class removal: drops over all classes, in points and relative (several cubes)",
            f"{figures}.class_drops:DropStatistics",
        ),
        Spec(
            "stability",
            "IoU of two masks of the same function: pooled, per function, per layer",
            f"{figures}.stability:Stability",
        ),
        Spec(
            "transfer_sharing",
            "Transfer: reused weights per layer (one cube per initialisation)",
            f"{figures}.transfer_sharing:TransferSharing",
        ),
        Spec(
            "mask_images",
            "Where in each tensor the weights of one stage, of several, of the control alone are",
            f"{figures}.mask_images:MaskImages",
        ),
        Spec(
            "layer_map",
            "Share of weights that each stage keeps, layer by layer and part by part",
            f"{figures}.module_maps:LayerMap",
        ),
        Spec(
            "head_map",
            "Share of weights that each stage keeps, attention by attention and head by head",
            f"{figures}.module_maps:HeadMap",
        ),
        Spec(
            "gradient_cosine",
            "Loss gradients of early layers, with late layers masked and not",
            f"{figures}.gradient_cosine:GradientCosine",
        ),
        Spec(
            "size_curve",
            "Score of cuts of many sizes, and without them, for each stage, with its own mask's size",
            f"{figures}.size_curve:SizeCurve",
        ),
        Spec(
            "history",
            "Loss, kept weights and gradient norm over the steps of training and mask stages",
            f"{figures}.history:History",
        ),
    ]


@hookimpl
def modhook_samplers() -> list[Spec]:
    """How masks are drawn from logits."""
    at = f"{_HERE}.samplers"
    return [
        Spec("gumbel", "Gumbel-sigmoid with a straight-through gradient", f"{at}.gumbel:Gumbel"),
        Spec(
            "hard_concrete",
            "Stretched and clipped concrete masks, with the expected number of kept weights as penalty",
            f"{at}.hard_concrete:HardConcrete",
        ),
        Spec(
            "continuous_sparsification",
            "Soft masks without noise that harden over the stage",
            f"{at}.continuous_sparsification:ContinuousSparsification",
        ),
        Spec("top_k", "The largest scores of each tensor, at a given density (edge-popup)", f"{at}.top_k:TopK"),
        Spec("magnitude", "Ranking without training: large weights", f"{at}.rankings:Magnitude"),
        Spec(
            "gradient_weight",
            "Ranking without training: weight times gradient, mean of absolute values",
            f"{at}.rankings:GradientWeight",
        ),
        Spec("snip", "Ranking without training: weight times mean gradient (SNIP)", f"{at}.rankings:Snip"),
        Spec(
            "integrated_gradients",
            "Ranking without training: gradients along the way from zero to the weights",
            f"{at}.rankings:IntegratedGradients",
        ),
    ]


@hookimpl
def modhook_protocols() -> list[Spec]:
    """The order of work of a run."""
    return [
        Spec("posthoc", "Train or load, freeze, then learn one mask per stage", f"{_HERE}.protocols.posthoc:Posthoc"),
        Spec(
            "given",
            "Masks on a network that comes with its weights, one per stage",
            f"{_HERE}.protocols.given:Given",
        ),
        Spec(
            "transfer",
            "One function after the other, weights and masks together",
            f"{_HERE}.protocols.transfer:Transfer",
        ),
        Spec("baseline", "Train or load and measure, without masks", f"{_HERE}.protocols.baseline:Baseline"),
    ]


@hookimpl
def modhook_trackers() -> list[Spec]:
    """Who is told how a run goes."""
    return [
        Spec("progress", "A progress bar in a terminal, plain lines elsewhere", f"{_HERE}.trackers.progress:Progress"),
        Spec("tensorboard", "TensorBoard logs beside the cube", f"{_HERE}.trackers.tensorboard:TensorBoard"),
        Spec("wandb", "Weights & Biases, online or offline", f"{_HERE}.trackers.wandb:WandB"),
    ]
