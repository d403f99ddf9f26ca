"""From a router's spec to the checkpoint that it names."""

from pathlib import Path

from batch.routers.checkpoints.format import CHECKPOINTS, Checkpoint, checkpoint_fingerprint, load_checkpoint
from batch.routers.checkpoints.hub import find_folder
from batch.routers.network.pretrained import folder_fingerprint
from schemas.routers import (
    BertRouterSpec,
    CausalLlmRouterSpec,
    ClusterRouterSpec,
    CorrectnessRouterSpec,
    KnnRouterSpec,
    StaticRouterSpec,
)

KEY = "router.checkpoint"

NetworkSpec = BertRouterSpec | CausalLlmRouterSpec
"""Routers whose checkpoint is a whole network, in RouteLLM's layout."""
VectorRouterSpec = CorrectnessRouterSpec | KnnRouterSpec | ClusterRouterSpec
"""Routers that go by a prompt's vector and a checkpoint of our own layout."""
OwnLayoutSpec = VectorRouterSpec | StaticRouterSpec
"""Routers whose checkpoint is in our own layout."""


def open_checkpoint(spec: OwnLayoutSpec) -> Checkpoint:
    """Read the checkpoint of our own layout that `spec` names, or the one that ships. Raises SpecError."""
    return load_checkpoint(_own_folder(spec), spec.kind)


def own_fingerprint(spec: OwnLayoutSpec) -> str:
    """Hash that changes with anything in that checkpoint that affects scores. Raises SpecError."""
    return checkpoint_fingerprint(_own_folder(spec))


def network_folder(spec: NetworkSpec) -> Path:
    """Folder of the network that the router runs whole. Raises SpecError where it is not on this machine."""
    return find_folder(spec.checkpoint, KEY)


def network_fingerprint(spec: NetworkSpec) -> str:
    """Hash that changes with anything in that folder that affects what the network says. Raises SpecError."""
    return folder_fingerprint(network_folder(spec), KEY)


def _own_folder(spec: OwnLayoutSpec) -> Path:
    return find_folder(spec.checkpoint, KEY) if spec.checkpoint else CHECKPOINTS / spec.kind
