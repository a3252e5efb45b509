"""Units of a network, such as neurons, channels and heads: found, shown, and spread over the weights that belong to them."""
