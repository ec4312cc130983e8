"""Draws the results: grouped bars, one group a subject, logarithmic times. SVG by hand."""

import math
from xml.sax.saxutils import escape

FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"
COLORS = ["#0072b2", "#e69f00", "#009e73"]
LABELS, PANEL, SPACE = 118, 300, 34
BAR, GROUP_GAP = 11, 11
HEAD, FOOT = 96, 40

# A metric "best" is the best slice's.
PANELS = [  # title, unit, [(series, workload, metric)]
    ("Call", "ns", [
        ("one handle, one thread", "w1", "ns"),
        ("one handle, two threads, each", "w2", "two_ns"),
        ("1,000,000 handles in random order", "w1m", "ns"),
    ]),
    ("End of a life", "ns", [
        ("register + unregister, one thread", "w3", "one_ns"),
        ("register + unregister, two threads, each", "w3", "two_ns"),
        ("unregister beside a calling thread", "w3r", "ns"),
    ]),
    ("References and memory", "ns and bytes", [
        ("retain + release, ns", "w5", "one_ns"),
        ("retain + release, two threads, each, ns", "w5", "two_ns"),
        ("memory of a live callback, bytes", "w4", "bytes"),
    ]),
]

QUEUE_PANELS = [
    ("One producer, saturated", "ns an event", [("median", "q1", "ns"), ("best slice", "q1", "best")]),
    ("Latency to a sleeping consumer", "ns", [("median", "q2", "ns"), ("nine of ten", "q2", "p90_ns")]),
    ("Four producers on all CPUs", "ns an event", [("median", "q3", "ns"), ("best slice", "q3", "best")]),
]


def text(x, y, words, size=11, anchor="start", color="#222", weight="normal"):
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' fill='{color}' "
            f"font-weight='{weight}' {FONT}>{escape(words)}</text>")


def shown(value):
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def panel(left, title, unit, series, results, subjects, height):
    values = {(s, w, m): results.best(w, s) if m == "best" else results.median(w, s, m)
              for s in subjects for _, w, m in series}
    known = [value for value in values.values() if value] or [1, 10]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    if min(known) < 1.5 * 10**low:
        low -= 0.3  # so that the shortest bar is seen
    room = PANEL - 44  # numbers stand beyond the bars

    def place(value):
        return left + (math.log10(value) - low) / (high - low) * room

    parts = [text(left, 50, title, 14, weight="bold"), text(left + PANEL, 50, unit, 10, "end", "#666")]
    for i, (name, _, _) in enumerate(series):
        y = 60 + 11.5 * i
        parts.append(f"<rect x='{left}' y='{y}' width='9' height='9' fill='{COLORS[i]}'/>")
        parts.append(text(left + 14, y + 8, name, 10))
    for power in range(math.ceil(low), high + 1):
        x = place(10**power)
        parts.append(f"<line x1='{x:.1f}' y1='{HEAD + 4}' x2='{x:.1f}' y2='{height - FOOT}' stroke='#ddd'/>")
        parts.append(text(x, height - FOOT + 14, f"{10**power:,}", 10, "middle", "#666"))
    for row, subject in enumerate(subjects):
        top = HEAD + GROUP_GAP + row * (len(series) * BAR + GROUP_GAP)
        for i, (_, workload, metric) in enumerate(series):
            value = values[subject, workload, metric]
            y = top + i * BAR
            if value is None:
                parts.append(text(left + 3, y + 9, "-", 9, color="#888"))
                continue
            width = max(place(value) - left, 1)
            parts.append(f"<rect x='{left}' y='{y}' width='{width:.1f}' height='{BAR - 1}' fill='{COLORS[i]}'/>")
            parts.append(text(left + width + 4, y + 9, shown(value), 9, color="#444"))
    return parts


def write(path, results, subjects, about, panels=None, title="callbridge and its peers"):
    panels = panels or PANELS
    bars = max(len(series) for _, _, series in panels) * BAR
    rows = len(subjects) * (bars + GROUP_GAP)
    width, height = LABELS + len(panels) * (PANEL + SPACE), HEAD + GROUP_GAP + rows + FOOT
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
        text(12, 24, f"{title}: shorter is better (logarithmic)", 16, weight="bold"),
        text(width - SPACE, 24, f"{about['cpu']}, {about['cpus']} CPUs, medians", 10, "end", "#666"),
    ]
    for row, subject in enumerate(subjects):
        top = HEAD + GROUP_GAP + row * (bars + GROUP_GAP)
        if subject == "callbridge":
            parts.append(f"<rect x='4' y='{top - GROUP_GAP / 2}' width='{width - 8}' height='{bars + GROUP_GAP}' "
                         "fill='#eaf3fa'/>")
        weight = "bold" if subject == "callbridge" else "normal"
        parts.append(text(LABELS - 8, top + bars / 2 + 4, subject, 11, "end", weight=weight))
    for number, (heading, unit, series) in enumerate(panels):
        parts += panel(LABELS + number * (PANEL + SPACE), heading, unit, series, results, subjects, height)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(parts + ["</svg>"]) + "\n")
