"""Mathematics that is distributed: V(h2) in its forms, streams of SNPs, tiles and units, Gram matrices."""
