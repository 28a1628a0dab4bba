"""What the benchmarks measured, as Markdown tables."""

from collections.abc import Sequence
from typing import Any

Case = dict[str, Any]


def speed_report(report: Case) -> str:
    """The report as tables: times for each arithmetic, memory, and all else that was measured."""
    kinds = dict.fromkeys(case["arithmetic"] for case in report["cases"])
    tables = [
        f"ours and floor in {kind}; seconds (s) per image\n\n"
        + markdown_table([_row(case) for case in report["cases"] if case["arithmetic"] == kind])
        for kind in kinds
    ]
    tables.append(markdown_table([_memory_row(case) for case in report["memory"]]))
    tables += [markdown_table(rows) for rows in (_cost_rows(report), _speed_rows(report)) if rows]
    lines = [
        f"{case['images']} images to {case['size']}: found in "
        f"{case['medians']['find_samples']:.2f} s, loaded in "
        f"{case['medians']['load_surfaces']:.2f} s."
        for case in report["loading"]
    ]
    lines += [f"Import of {key}: {x['median']:.3f} s." for key, x in report["import"].items()]
    return "\n\n".join([*tables, "\n".join(lines)])


def _row(case: Case) -> dict[str, str]:
    seconds = {f"{name} s": f"{value:.4g}" for name, value in case["medians"].items()}
    ratios = {name: f"{value:.2f}" for name, value in case["ratios"].items()}
    return {key: str(case[key]) for key in ("what", "size", "batch")} | seconds | ratios


def _memory_row(case: Case) -> dict[str, str]:
    known = {key: str(case[key]) for key in ("variant", "arithmetic", "size", "batch")}
    sizes = {"growth MiB": case["growth_bytes"], "peak MiB": case["peak_bytes"]}
    return known | {name: f"{value / 2**20:.0f}" for name, value in sizes.items()}


def _cost_rows(report: Case) -> list[dict[str, str]]:
    return [
        {key: str(value) for key, value in case.items()} | {"ratio": f"{case['ratio']:.2f}"}
        for case in report["cost_of_size"]
    ]


def _speed_rows(report: Case) -> list[dict[str, str]]:
    return [
        {"size": case["size"], "arithmetic": case["arithmetic"]}
        | {f"images/s, batch {b}": f"{x:.1f}" for b, x in case["images_per_second"].items()}
        for case in report["throughput"]
    ]


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of the same columns as one Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def short(value: Any) -> str:
    """A number to four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
