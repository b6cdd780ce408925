"""Who attracts whom: from a batch to indices of triplets."""
