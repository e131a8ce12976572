"""What every command starts from: the inputs, the session around a run, the machine that a plan must fit."""
