"""The files of the lab, as any client gets them."""

from __future__ import annotations

import httpx


def test_the_page_is_found_with_a_slash_behind_it_too(http: httpx.Client) -> None:
    answer = http.get("/lab/")
    assert answer.status_code == 307
    assert httpx.URL("http://host/prefix/lab/").join(answer.headers["location"]).path == "/prefix/lab"
    assert http.get("/lab").headers["content-type"].startswith("text/html")
