"""mpgls: exact mixed-model genome-wide association studies on distributed memory."""

__version__ = "0.1.0"
