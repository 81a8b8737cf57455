"""How much trains: numbers of parameters, and a table of them."""

from typing import Any

from rich.table import Table
from torch import nn

from petl_modules.core.adapted import AdaptedModel
from petl_modules.core.host import Host

GROUPS = {
    "petl": "method",
    "backbone": "backbone",
    "site_norms": "norms of the sites",
    "last_norm": "last norm",
    "head": "head",
}


def counts(model: AdaptedModel, head: Any) -> dict[str, int]:
    """Numbers of parameters.

    Returns
    -------
    dict
        petl (of the method; for full fine-tuning the backbone's own, without the
        last LayerNorm), site_norms, last_norm, head (and parts of the backbone that
        train beside the method), trainable (their sum), and backbone (all of it,
        trained or not).
    """
    groups = {"petl": 0, "site_norms": 0, "last_norm": 0, "head": size(head)}
    for group in model.groups():
        kind = "petl" if group.kind == "backbone" else group.kind
        groups[kind] += group.count
    return {
        **groups,
        "trainable": sum(groups.values()),
        "backbone": size(model.backbone),
    }


def effective(model: AdaptedModel) -> dict[str, Any]:
    """What sizes come to on this backbone: `{"rank": r}`, or of sites that differ a
    list of them; `ranks` by module too where training has parted them; empty for a
    method that has none."""
    found = {getattr(module, "rank", None) for module in model.petl.values()}
    ranks = sorted(rank for rank in found if isinstance(rank, int))
    parted = {
        name: module.allocated
        for name, module in model.petl.items()
        if getattr(module, "allocated", None) is not None
    }
    sizes: dict[str, Any] = {"ranks": parted} if any(parted.values()) else {}
    return {"rank": ranks[0] if len(ranks) == 1 else ranks, **sizes} if ranks else {}


def table(model: AdaptedModel, head: Any, method: str) -> Table:
    """A table of what trains: group, site, tensors, parameters, % of the backbone."""
    whole = size(model.backbone)
    rows = [
        (GROUPS[g.kind], g.site or "all", len(g.parameters), g.count)
        for g in model.groups()
    ]
    rows.append(("head", "", len(list(head.parameters())), size(head)))
    sizes = "".join(f", {key}={value}" for key, value in effective(model).items())
    title = f"What trains with method={method}{sizes}"
    table = Table(title=title, title_justify="left")
    for name in ("group", "site"):
        table.add_column(name)
    for name in ("tensors", "parameters", "% of backbone"):
        table.add_column(name, justify="right")
    for group, site, tensors, parameters in rows:
        share = f"{100 * parameters / whole:.3f}"
        table.add_row(group, site, str(tensors), f"{parameters:,}", share)
    table.add_section()
    total = sum(parameters for *_, parameters in rows)
    tensors = sum(n for _, _, n, _ in rows)
    share = f"{100 * total / whole:.3f}"
    table.add_row("trained", "", str(tensors), f"{total:,}", share)
    table.add_row("backbone", "", "", f"{whole:,}", "100", style="dim")
    return table


def size(module: Host | nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
