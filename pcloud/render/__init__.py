"""Every face of a run is a function of its events: none decides, none exits.

- `faces`: the `Face` protocol and `choose_face`; `live` a picture on a terminal (made by the
  pure `frame`), `lines` a log or JSON.
- `plan`: what would be done and why, before it is done.
- `report`: a finished or killed run as data; `report_text` and `report_html` (with `gantt`)
  show it.
- `overview` arranges a state as people look at it; `words` has the wording, symbols, colours.
"""
