"""Feed-forward halves of a layer: a dense network, or a mixture of experts."""

from typing import NamedTuple

from flax import struct

from .._types import Leaf
from ..switch import Switch

COUNTLESS = 1e9
"""So many experts that which of them a token's copies go to is drawn independently."""


class GroupLimit(NamedTuple):
    """Of how many groups of experts a token may use how many, and experts in all."""

    groups: Leaf = 1.0
    topk_groups: Leaf = 1.0
    experts: Leaf = COUNTLESS


MOST_GROUPS = 16
"""Most groups that a token may use where the choice is limited."""

ANY_GROUP = GroupLimit()


class FeedForward:
    """Half of a layer that works on each token alone, by networks of one shape."""

    intermediate: Leaf
    gated: Switch
    """Gate, up and down projections (SwiGLU) instead of up and down."""
    biased: Switch
    """Each projection carries a bias."""
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    """As of a mixer; of a mixture that of routed experts."""

    def norm_parameters(self, hidden: Leaf) -> Leaf:
        """Weights of the norms around it."""
        return self.norms * self.norm_vectors * hidden

    def token_width(self, hidden: Leaf) -> Leaf:
        """Width of what its networks read and put out."""
        return hidden

    def network_parameters(self, hidden: Leaf) -> Leaf:
        """Weights of one network."""
        matrices, outer = 2.0 + self.gated.on, self.token_width(hidden)
        per_width = matrices * outer + self.biased.on * (matrices - 1.0)
        return per_width * self.intermediate + self.biased.on * outer


class Dense(FeedForward, struct.PyTreeNode, kw_only=True, frozen=True):
    """A dense feed-forward network."""

    intermediate: Leaf
    gated: Switch
    biased: Switch
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    kind: str = struct.field(pytree_node=False, default="dense")

    def parameters(self, hidden: Leaf, network: Leaf) -> Leaf:
        """Weights, those of norms left out, from those of its network."""
        return network


class Experts(FeedForward, struct.PyTreeNode, kw_only=True, frozen=True):
    """The routed and shared experts of a mixture-of-experts layer."""

    routed: Leaf
    topk: Leaf
    """Experts that compute for a token: the expected number, where some of those that a
    router chooses from compute nothing."""
    shared: Leaf
    """Shared experts, each of the routed experts' intermediate size."""
    intermediate: Leaf
    gated: Switch
    biased: Switch
    narrowing: Leaf
    """How much narrower than the hidden state is what experts work on."""
    projected: Leaf
    """Width of the projections to that and back, 0 where it is the hidden state; and of
    the router for experts that compute nothing."""
    extra: Leaf
    """Weights that stand beside the experts: a bias of the router, a gate of the shared
    one, and what it has more than a routed one where those are narrower."""
    groups: Leaf
    topk_groups: Leaf
    """Of as many groups of experts, one after another on the devices, those that a token
    may use: node-limited routing (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)."""
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    shared_stored: Leaf
    """The same of shared experts."""
    has_shared: bool = struct.field(pytree_node=False, default=True)
    """False where `shared` is 0, so that no kernels are launched for it."""
    kind: str = struct.field(pytree_node=False, default="experts")

    @property
    def limit(self) -> GroupLimit:
        return GroupLimit(self.groups, self.topk_groups, self.routed)

    def token_width(self, hidden: Leaf) -> Leaf:
        return hidden - self.narrowing

    @property
    def wider_parameters(self) -> Leaf:
        """Weights that a shared expert has more than a routed one, as it works on the
        hidden state."""
        return (2.0 + self.gated.on) * self.narrowing * self.intermediate

    def routing_parameters(self, hidden: Leaf) -> Leaf:
        """Matrices of the router, and of projections around the experts."""
        return hidden * (self.routed + self.projected)

    def router_parameters(self, hidden: Leaf) -> Leaf:
        """The same with all that a mixture has beside its experts."""
        return self.routing_parameters(hidden) + self.extra

    def parameters(self, hidden: Leaf, network: Leaf) -> Leaf:
        """Weights of the router and all experts, from those of one expert."""
        return (self.routed + self.shared) * network + self.router_parameters(hidden)
