"""jobd beside its peers: the same units through each, as its own documentation advises, and killed."""
