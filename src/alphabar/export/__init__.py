"""Exports: a trained model as files that generate the same samples elsewhere. One file for each target."""

from alphabar.export.diffusers import Diffusers
from alphabar.export.hub import Hub
from alphabar.export.onnx import Onnx
from alphabar.export.openvino import Openvino
from alphabar.registry import Registry

TARGETS = Registry("export target", {"onnx": Onnx, "openvino": Openvino, "diffusers": Diffusers, "hub": Hub})
