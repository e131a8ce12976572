"""The steps of mpgls vgwas."""
