# SPDX-License-Identifier: MIT
"""From the samples of `perf script` to folded stacks, a text summary and a flame graph.

usage: perf script -F comm,ip,sym | fold.py [--svg FILE] [--folded FILE] [--top N] [--title TEXT]

A stack is a tuple of frames, outermost first; kernel frames end in "_[k]".
"""
import argparse
import collections
import html
import sys

KERNEL = 0xffff800000000000


def read_stacks(lines):
    """Counter of stacks from `perf script -F comm,ip,sym`: a line with the command, then one line a
    frame, innermost first, then a blank line."""
    stacks, comm, frames = collections.Counter(), None, []
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if comm is not None:
                stacks[tuple([comm] + frames[::-1])] += 1
            comm, frames = None, []
        elif not line[0].isspace() or comm is None:
            comm = line.strip().rstrip(":")
        else:
            address, _, symbol = line.strip().partition(" ")
            symbol = symbol.strip() or "[unknown]"
            frames.append(symbol + ("_[k]" if int(address, 16) >= KERNEL else ""))
    if comm is not None:
        stacks[tuple([comm] + frames[::-1])] += 1
    return stacks


def folded(stacks):
    return "".join(f"{';'.join(stack)} {count}\n" for stack, count in sorted(stacks.items()))


def summary(stacks, top):
    """Where the time is spent: per function alone, and with all it calls."""
    alone, below, kernel, total = collections.Counter(), collections.Counter(), 0, 0
    for stack, count in stacks.items():
        total += count
        alone[stack[-1]] += count
        kernel += count if stack[-1].endswith("_[k]") else 0
        for frame in set(stack[1:]):
            below[frame] += count
    if not total:
        return "no samples\n"
    text = [f"{total} samples, {kernel / total:.1%} in the kernel, "
            f"{1 - kernel / total:.1%} in user space"]
    users = collections.Counter({f: n for f, n in alone.items() if not f.endswith("_[k]")})
    for title, counter in (("by itself", alone), ("by itself, user space only", users),
                           ("with all it calls", below)):
        text.append(f"\n{title}")
        text += [f"{count / total:7.2%}  {frame}" for frame, count in counter.most_common(top)]
    return "\n".join(text) + "\n"


class Node:
    def __init__(self, name):
        self.name, self.count, self.children = name, 0, {}


def build_tree(stacks):
    root = Node("all")
    for stack, count in stacks.items():
        root.count += count
        node = root
        for frame in stack:
            node = node.children.setdefault(frame, Node(frame))
            node.count += count
    return root


WIDTH, ROW, PAD, SMALLEST = 1200, 17, 30, 0.3  # pixels


def boxes(root):
    """(node, x, width, depth) of everything wide enough to be seen, without recursion."""
    scale, pending = (WIDTH - 2 * PAD) / max(1, root.count), [(root, PAD, 0)]
    while pending:
        node, x, depth = pending.pop()
        width = node.count * scale
        if width < SMALLEST:
            continue
        yield node, x, width, depth
        for child in sorted(node.children.values(), key=lambda c: c.name):
            pending.append((child, x, depth + 1))
            x += child.count * scale


def colour(name):
    """Kernel in blues, user space in warm tones; the same name always the same."""
    tone = sum(ord(c) * (i + 7) for i, c in enumerate(name)) % 60
    if name.endswith("_[k]"):
        return f"rgb({120 + tone},{165 + tone // 2},225)"
    return f"rgb(240,{130 + tone * 3 // 2},{60 + tone})"


# Click a box to see it over the whole width, click the lowest one to go back.
SCRIPT = """
const boxes = [...document.querySelectorAll('g')], width = %d, pad = %d;
const number = (e, name) => parseFloat(e.dataset[name]);
function zoom(to) {
  const x0 = number(to, 'x'), scale = (width - 2 * pad) / number(to, 'w'), depth = number(to, 'd');
  for (const g of boxes) {
    const x = number(g, 'x'), w = number(g, 'w'), above = number(g, 'd') >= depth;
    const inside = x + w > x0 + 0.001 && x < x0 + number(to, 'w') - 0.001;
    g.style.display = inside ? '' : 'none';
    const left = above ? pad + (x - x0) * scale : pad, wide = above ? w * scale : width - 2 * pad;
    const rect = g.querySelector('rect'), text = g.querySelector('text');
    rect.setAttribute('x', left); rect.setAttribute('width', Math.max(wide - 0.5, 0.1));
    rect.style.opacity = above ? 1 : 0.5;
    text.setAttribute('x', left + 3);
    const room = Math.floor((wide - 6) / 6.6), name = g.dataset.n;
    text.textContent = room < 3 ? '' : name.length <= room ? name : name.slice(0, room);
  }
}
boxes.forEach(g => g.addEventListener('click', () => zoom(g)));
zoom(boxes[0]);
"""


def svg(stacks, title):
    root = build_tree(stacks)
    drawn = list(boxes(root))
    deepest = max(depth for *_, depth in drawn)
    height = (deepest + 1) * ROW + 2 * PAD
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
           f'viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
           '<rect width="100%" height="100%" fill="#fff"/>',
           f'<text x="{WIDTH / 2}" y="20" text-anchor="middle" font-size="14">'
           f'{html.escape(title)}</text>']
    for node, x, width, depth in drawn:
        y = height - PAD - (depth + 1) * ROW
        name, share = html.escape(node.name, quote=True), node.count / root.count
        fits = html.escape(node.name[:max(0, int((width - 6) / 6.6))])
        out.append(f'<g data-x="{x:.2f}" data-w="{width:.2f}" data-d="{depth}" data-n="{name}">'
                   f'<title>{name}: {node.count} samples, {share:.2%}</title>'
                   f'<rect x="{x:.2f}" y="{y}" width="{max(width - 0.5, 0.1):.2f}" '
                   f'height="{ROW - 1}" fill="{colour(node.name)}"/>'
                   f'<text x="{x + 3:.2f}" y="{y + 12}">{fits}</text></g>')
    out.append("<script><![CDATA[" + SCRIPT % (WIDTH, PAD) + "]]></script></svg>")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", metavar="FILE")
    parser.add_argument("--folded", metavar="FILE")
    parser.add_argument("--top", type=int, default=30, metavar="N")
    parser.add_argument("--title", default="CPU time")
    options = parser.parse_args()
    stacks = read_stacks(sys.stdin)
    if not stacks:
        sys.exit("fold: no samples on stdin")
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(svg(stacks, options.title))
    if options.folded:
        with open(options.folded, "w") as file:
            file.write(folded(stacks))
    sys.stdout.write(summary(stacks, options.top))


if __name__ == "__main__":
    main()
