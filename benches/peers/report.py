"""The figures of a run as a table, as JSON, as pictures, and beside the bars they have to reach."""
import html, json, os, statistics

ORDER = ["direct", "raw TCP", "ssh host true", "dtunnel", "api = false", "guard on", "ssh -L", "ssh://", "ssh:// mux", "rsync -a"]
# What has to be reached: a row, and one figure over another one. "slowest" is dtunnel's slowest round.
BARS = [
    ("docker ps, loopback", "dtunnel", "ssh -L", "<=", 1.05),
    ("docker ps, loopback", "dtunnel", "direct", "<=", 1.15),
    ("docker ps, 50 ms", "dtunnel", "ssh -L", "<=", 0.43),
    ("docker ps, 50 ms", "dtunnel", "ssh://", "<=", 0.13),
    ("docker ps, 50 ms, back to back", "dtunnel", "ssh -L", "<=", 0.4),
    ("docker exec, 50 ms", "dtunnel", "ssh -L", "<=", 0.57),
    ("docker run --rm, 50 ms", "dtunnel", "ssh -L", "<=", 0.53),
    ("64 docker ps at once, 50 ms", "dtunnel", "ssh -L", "<=", 0.8),
    *[
        (f"1 GB {direction}, {cipher}", *what, ">=", bound)
        for cipher in ("aes256-gcm", "aes128-gcm", "chacha20-poly1305")
        for direction, what, bound in (
            ("down", ("dtunnel", "ssh -L"), 1.0),
            ("down", ("slowest", "dtunnel"), 0.7),
            ("up", ("dtunnel", "ssh -L"), 1.0),
        )
    ],
    ("1 GB down, aes128-ctr", "dtunnel", "ssh -L", ">=", 1.0),
    ("1 GB up, aes128-ctr", "dtunnel", "ssh -L", ">=", 1.2),
    ("1 GB down, defaults", "dtunnel", "ssh -L", ">=", 1.2),
    ("1 GB up, defaults", "dtunnel", "ssh -L", ">=", 1.2),
    ("128 MB down, 50 ms", "dtunnel", "raw TCP", ">=", 0.9),
    ("128 MB up, 50 ms", "dtunnel", "ssh -L", ">=", 1.0),
    ("echo, idle, p50", "dtunnel", "ssh -L", "<=", 1.0),
    ("echo, idle, p99", "dtunnel", "ssh -L", "<=", 1.0),
    ("echo beside bulk down, p99", "dtunnel", "ssh -L", "<=", 0.5),
    ("echo beside bulk up, p99", "dtunnel", "ssh -L", "<=", 0.5),
    ("echo beside bulk down and up, p99", "dtunnel", "ssh -L", "<=", 0.5),
    ("two downloads at once", "dtunnel", "ssh -L", ">=", 1.0),
    ("CPU per GB, two downloads", "dtunnel", "ssh -L", "<=", 1.0),
    ("1000 flows at once: connected, and a first echo", "dtunnel", "ssh -L", "<=", 0.6),
    ("1000 flows at once: a second echo", "dtunnel", "ssh -L", "<=", 1.0),
    ("1000 flows at once: errors", "dtunnel", None, "<=", 0),
    ("10 000 flows: errors", "dtunnel", None, "<=", 0),
    ("10 000 flows: memory each", "dtunnel", None, "<=", 12),
    ("100 tunnels: memory together (PSS)", "dtunnel", None, "<=", 150),
    ("docker save 256 MB", "dtunnel", "ssh -L", "<=", 0.85),
    ("docker load 256 MB", "dtunnel", "ssh -L", "<=", 0.85),
    ("docker build, context of 200 MB", "dtunnel", "ssh -L", "<=", 0.85),
    *[
        (f"{name}, layer", ours, peer, "<=", bound)
        for name in ("a ping on a connection that is kept", "docker ps", "docker run --rm")
        for ours, peer, bound in (("dtunnel", "api = false", 1.02), ("guard on", "dtunnel", 1.03))
    ],
    *[
        (f"{name}, layer", "dtunnel", "api = false", "<=", 1.02)
        for name in ("docker save 256 MB", "docker load 256 MB", "docker build, context of 200 MB")
    ],
    ("20 000 files to the host, loopback", "dtunnel", "rsync -a", "<=", 2),
    ("20 000 files to the host, 50 ms", "dtunnel", "rsync -a", "<=", 2),
    ("an edit until the container has it, 50 ms", "dtunnel", None, "<=", 250),
    ("idle RSS", "dtunnel", None, "<=", 8),
    ("idle CPU", "dtunnel", None, "<=", 0.1),
    ("up, loopback", "dtunnel", "ssh host true", "<=", 1.3),
    ("up, 50 ms: round trips", "dtunnel", None, "<=", 7),
    ("dtunnel env", "dtunnel", None, "<=", 2),
    ("dtunnel status", "dtunnel", None, "<=", 2),
    ("binary", "dtunnel", None, "<=", 9),
]
PICTURES = {
    "commands": ["docker ps, loopback", "docker ps, 50 ms", "docker ps, 50 ms, back to back", "docker run --rm, 50 ms"],
    "throughput": ["1 GB down, defaults", "1 GB up, defaults", "two downloads at once", "128 MB down, 50 ms"],
    "latency": ["echo, idle, p99", "echo beside bulk down, p99", "echo beside bulk up, p99", "echo beside bulk down and up, p99"],
}
COLOURS = {"dtunnel": "#1f77b4", "ssh -L": "#999999", "ssh://": "#d08770", "ssh:// mux": "#e0b0a0"}


def peers(row):
    return sorted(row["peers"].items(), key=lambda item: ORDER.index(item[0]))


def figure(value):
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def verdicts(rows):
    """(what, ratio or figure, bound, reached) for each bar that this run has the figures for."""
    for name, ours, peer, sense, bound in BARS:
        row = rows.get(name, {"peers": {}})["peers"]
        if "dtunnel" in row:
            row = {"slowest": [min(row["dtunnel"])], **row}
        if ours in row and (peer is None or peer in row):
            value = statistics.median(row[ours]) / (statistics.median(row[peer]) if peer else 1)
            left = {"dtunnel": "", "slowest": ", slowest round", "guard on": ", guard on"}[ours]
            what = f"{name}{left}, of {'its median' if ours == 'slowest' else peer}" if peer else f"{name} ({rows[name]['unit'] or 'count'})"
            yield what, value, f"{'≤' if sense == '<=' else '≥'} {bound:g}", value <= bound if sense == "<=" else value >= bound


def markdown(rows):
    lines = ["| | peer | median | min | max | dtunnel is |", "| --- | --- | --- | --- | --- | --- |"]
    for name, row in rows.items():
        ours = statistics.median(row["peers"].get("dtunnel", [0]))
        for at, (peer, samples) in enumerate(peers(row)):
            median = statistics.median(samples)
            ratio = f"{ours / median:.2f}x" if median and peer != "dtunnel" and "dtunnel" in row["peers"] else ""
            unit = f" {row['unit']}" if row["unit"] else ""
            title = name if at == 0 else ""
            lines.append(f"| {title} | {peer} | {figure(median)}{unit} | {figure(min(samples))} | {figure(max(samples))} | {ratio} |")
    lines += ["", "| bar | measured | asked | |", "| --- | --- | --- | --- |"]
    for what, value, bound, reached in verdicts(rows):
        lines.append(f"| {what} | {value:.2f} | {bound} | {'reached' if reached else '**not reached**'} |")
    return lines


def text(rows):
    """For a terminal: the same tables with their columns in line."""
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(rows)]
    out = []
    for cells in split:
        if not any(cells):
            out.append("")
        elif cells[0] != "---":
            widths = (50, 16, 12, 12, 12, 12) if len(cells) == 6 else (50, 16, 12, 12)
            out.append("".join(f"{cell.replace('**', ''):<{width}}" for cell, width in zip(cells, widths)).rstrip())
    return "\n".join(out)


def picture(rows, names):
    """Medians as bars, a whisker from min to max; each row has its own scale."""
    height, out = 10, []
    for name in names:
        row = rows[name]
        out.append(f'<text x="10" y="{height + 14}" font-weight="bold">{html.escape(name)} ({row["unit"]})</text>')
        height += 24
        most = max(max(samples) for _, samples in peers(row))
        for peer, samples in peers(row):
            scale = lambda value: 110 + 400 * value / most
            median, y = statistics.median(samples), height + 12
            out.append(f'<text x="100" y="{y}" text-anchor="end">{html.escape(peer)}</text>')
            out.append(f'<rect x="110" y="{height + 2}" width="{scale(median) - 110:.1f}" height="12" fill="{COLOURS.get(peer, "#bbccdd")}"/>')
            out.append(f'<path d="M{scale(min(samples)):.1f} {height + 8}H{scale(max(samples)):.1f}" stroke="#333"/>')
            out.append(f'<text x="520" y="{y}">{figure(median)}</text>')
            height += 17
        height += 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="580" height="{height}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, f'<rect width="580" height="{height}" fill="white"/>', *out, "</svg>"]) + "\n"


def write(rows, docs):
    """Into docs/: the JSON, the pictures, and the tables between the marks of benchmarks.md."""
    with open(f"{docs}/benchmarks.json", "w") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")
    for name, names in PICTURES.items():
        with open(f"{docs}/benchmarks-{name}.svg", "w") as file:
            file.write(picture(rows, names))
    page = f"{docs}/benchmarks.md"
    before, rest = open(page).read().split("<!-- figures -->")
    after = rest.split("<!-- /figures -->")[1]
    table = "\n".join(markdown(rows))
    with open(page, "w") as file:
        file.write(f"{before}<!-- figures -->\n{table}\n<!-- /figures -->{after}")
