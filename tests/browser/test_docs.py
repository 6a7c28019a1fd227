"""/docs describes the JSON API and calls it, without loading anything from other hosts."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Tab
from tests.browser.server import Server


def test_the_api_is_described_and_can_be_called_without_a_network(home: Tab, server: Server, screenshots: Path) -> None:
    described = server.get("/openapi.json")["paths"]
    home.page.goto(f"{server.url}/docs", wait_until="commit")
    home.page.locator(".opblock").first.wait_for()
    paths = [path.replace("\u200b", "") for path in home.page.locator(".opblock-summary-path").all_text_contents()]
    assert sorted(paths) == sorted(path for path, calls in described.items() for _ in calls)
    call = home.page.locator(".opblock", has_text="/api/v1/tokens")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.locator("textarea").fill('{"text": "the fat cat"}')
    call.get_by_role("button", name="Execute").click()
    call.locator(".live-responses-table", has_text='"text": "·cat"').wait_for()
    home.page.screenshot(path=screenshots / "docs.png", full_page=True)


def test_our_style_sheet_does_not_change_swagger_ui(home: Tab, server: Server) -> None:
    home.page.goto(f"{server.url}/docs", wait_until="commit")
    home.page.locator(".json-schema-2020-12__title").first.wait_for()
    report = Axe().run(home.page, context=".json-schema-2020-12__title", options={"runOnly": ["color-contrast"]})
    assert report.violations_count == 0, report.generate_report()
    home.page.locator(".opblock-summary-control").first.click()
    cell = home.page.locator(".responses-table td").last
    assert cell.evaluate("(cell) => getComputedStyle(cell).textAlign") in ("left", "start")
