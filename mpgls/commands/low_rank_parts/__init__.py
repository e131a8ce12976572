"""What mpgls low-rank starts from, plans, and hands from stage to stage."""
