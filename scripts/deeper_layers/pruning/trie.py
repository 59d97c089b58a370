"""The cuts of one model as a trie over the layers that they keep: what cuts have in common from the first
layer on is computed once for all of them. No torch: estimates count with it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .layer_set import LayerSet


@dataclass(frozen=True)
class Node:
    """What has run: the kept layers on the way here from the root, of which ``layer`` is the last (None at
    the root, where none has). ``cut`` is the set that keeps no further layer, if there is one, and
    ``children`` are the nodes one layer further. The child that needs most states comes last, since this
    node's own state is not needed any more once it has run.
    """

    layer: int | None
    cut: LayerSet | None
    children: tuple[Node, ...]

    @cached_property
    def layers(self) -> int:
        """How many layers run after this node, each on the state of its parent."""
        return sum(1 + child.layers for child in self.children)

    @cached_property
    def states(self) -> int:
        """How many states are kept at most from here on, depth first, this node's included."""
        *others, last = [child.states for child in self.children] or [1]
        return max([last, *(1 + states for states in others)])


def trie(cuts: Iterable[LayerSet], n_layers: int) -> Node:
    """The root of the trie of ``cuts`` of a model of ``n_layers`` layers. Raises UserError for a cut that
    does not fit it."""
    # Not by recursion, since a model may have more layers than Python has frames: first what each node has,
    # parents before their children, then the nodes themselves, children first.
    plans: list[tuple[int | None, list[tuple[list[int], LayerSet]], list[int]]] = []
    plans.append((None, [(cut.kept(n_layers), cut) for cut in cuts], []))
    depths = [0]
    for (_, group, numbers), depth in zip(plans, depths, strict=False):  # both grow along the way
        further: dict[int, list[tuple[list[int], LayerSet]]] = {}
        for kept, cut in group:
            if len(kept) > depth:
                further.setdefault(kept[depth], []).append((kept, cut))
        for next_layer, rest in further.items():
            numbers.append(len(plans))
            plans.append((next_layer, rest, []))
            depths.append(depth + 1)
    nodes: dict[int, Node] = {}
    for i, (layer, group, numbers) in reversed(list(enumerate(plans))):
        complete = [cut for kept, cut in group if len(kept) == depths[i]]
        children = sorted(
            (nodes.pop(k) for k in numbers), key=lambda child: (child.states, -(child.layer or 0))
        )
        nodes[i] = Node(layer, complete[0] if complete else None, tuple(children))
        _ = nodes[i].layers, nodes[i].states  # known from here on
    return nodes[0]
