"""Attributions to display, hostile text, and pages as a browser parses them."""

import html.parser

import numpy as np

from trak.attribution.results import ArrayAttribution

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & 'a' \"b\" {{style}} \u2028"


def attribution(n=12, m=4, seed=0):
    return ArrayAttribution(np.random.default_rng(seed).normal(size=(n, m)), name="mine")


class Page(html.parser.HTMLParser):
    """What a browser would make of it: elements, and the text outside of styles."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self._inside = [], [], ""
        self.feed(source)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside != "style":
            self.words.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]
