"""The style of the pages: light and dark by the reader's own setting, one column on a phone."""

STYLE = """
:root { color-scheme: light dark; --paper: #f4f5f7; --card: #ffffff; --ink: #20242a; --faint: #545c66; --line: #dfe3e8;
  --notice: #fff4dc; --mark: #b36b0c; --code: #e9ecf0; --link: #1a5fb4; --shade: rgba(20, 24, 30, .22); }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --card: #1e2228; --ink: #e6e9ed; --faint: #a9b2bd; --line: #363c45; --notice: #3a2f17;
    --mark: #e0a13a; --code: #2b3038; --link: #8ab8f5; --shade: rgba(0, 0, 0, .65); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 12px; letter-spacing: -0.01em; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
a { color: var(--link); }
.notice { background: var(--notice); border-left: 4px solid var(--mark); padding: 10px 14px;
  border-radius: 0 6px 6px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.card, .plot, figure, .scroll { background-color: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card { padding: 14px 16px; }
.card b { display: block; font-size: 28px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { display: block; color: var(--faint); font-size: 13px; }
.scroll { overflow-x: auto;
  background-image: linear-gradient(to right, var(--card) 50%, transparent),
    linear-gradient(to left, var(--card) 50%, transparent),
    linear-gradient(to right, var(--shade), transparent), linear-gradient(to left, var(--shade), transparent);
  background-position: left, right, left, right; background-repeat: no-repeat;
  background-size: 48px 100%, 48px 100%, 16px 100%, 16px 100%; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
td.name, th.name { text-align: left; }
.sideways { display: none; margin: 0 0 6px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 14px;
  align-items: start; }
.plot { padding: 8px; background-color: #ffffff; }
.plot a { display: block; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.sheets { display: grid; grid-template-columns: 1fr; gap: 14px; }
figure { margin: 0; padding: 12px; }
.panels { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; }
.panel { color: var(--faint); font-size: 13px; text-decoration: none; }
.panel img { width: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 10px 0 0; padding: 0;
  font-size: 14px; }
.legend i { display: inline-block; width: 14px; height: 14px; border-radius: 3px; margin-right: 6px;
  vertical-align: -2px; border: 1px solid var(--faint); }
figcaption { color: var(--faint); font-size: 13px; margin-top: 8px; overflow-wrap: anywhere; }
footer, .fine { color: var(--faint); font-size: 13px; }
dl.fine { display: grid; grid-template-columns: 220px 1fr; gap: 6px 16px; margin: 0; }
dl.fine dt { font-weight: 600; color: var(--ink); }
dl.fine dd { margin: 0; }
code { background: var(--code); border-radius: 4px; padding: 1px 5px; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  main { padding: 20px 12px 48px; }
  .panels { grid-template-columns: 1fr; }
  .sideways { display: block; }
  td.name:first-child { white-space: normal; min-width: 110px; }
  dl.fine { grid-template-columns: 1fr; gap: 0; }
  dl.fine dd { margin-bottom: 10px; }
}
"""
