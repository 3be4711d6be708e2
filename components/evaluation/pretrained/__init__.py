"""Figures of networks that others trained, from files that the parameters name; nothing is ever downloaded."""
