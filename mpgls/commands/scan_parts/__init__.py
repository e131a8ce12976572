"""What the commands share that scan with one null model a trait: single-trait and low-rank."""
