"""The life of a run: world, job, plan, ledger (what is done), options, identity of inputs."""
