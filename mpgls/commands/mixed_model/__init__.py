"""What scans with a mixed model share: covariance, null model, chromosomes left out, the loop over SNPs, results."""
