"""labeller: which interests last, learnt from those that did."""
