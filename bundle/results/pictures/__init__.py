"""Results to look at: previews, comparisons with the ground truth, colours."""
