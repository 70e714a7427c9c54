"""Layers, attention, LoRA and int8 as functions and thin modules; they belong to no section."""
