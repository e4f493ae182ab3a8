"""Every page of a site, once: a job that grows while it runs.

Crawl a site:             jobd run docs/examples/crawler.py:crawl --job-key site http://localhost:8000/
Kill it, run it again:    pages that are stored stay; what was found but not seen is seen now.
"""

import html.parser
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from jobd import Context, Fail, Jobd, Skip

app = Jobd()


class Page(html.parser.HTMLParser):
    """The title of a page, and the links to others of the same site."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self._url = url
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        for name, value in attrs:
            if tag == "a" and name == "href" and value:
                link = urllib.parse.urldefrag(urllib.parse.urljoin(self._url, value)).url
                if urllib.parse.urlsplit(link).netloc == urllib.parse.urlsplit(self._url).netloc:
                    self.links.append(link)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False


@app.task(retries=3, retry_on=OSError, backoff="1s", timeout="1m")
def crawl(url: str, ctx: Context) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            if answer.headers.get_content_type() != "text/html":
                raise Skip(f"not a page: {answer.headers.get_content_type()}")
            text = answer.read().decode(answer.headers.get_content_charset() or "utf-8", "replace")
    except urllib.error.HTTPError as error:
        # The page's own fault is no reason to ask for it again.
        if error.code < 500:
            raise Fail(f"{error.code} {error.reason}") from None
        raise
    page = Page(url)
    page.feed(text)
    return {"title": page.title.strip(), "links": len(page.links), "new": ctx.add_items(page.links)}
