"""Exports: a trained model as files that generate the same samples elsewhere. One file for each target."""

from alphabar.export.diffusers import Diffusers
from alphabar.export.hub import Hub
from alphabar.registry import Registry

TARGETS = Registry("export target", {"diffusers": Diffusers, "hub": Hub})
