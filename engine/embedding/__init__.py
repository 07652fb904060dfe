"""The engine inside other serving stacks: one small file each, imported by nobody else."""
