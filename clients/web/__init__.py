"""`mk9p web`: the namespace as a live page in a browser.

gate.py    who may ask: the token, the page's own address, the mark of a change
look.py    what a kernel's files say now, as the page shows it
feed.py    one look for all who watch, and the events; nothing is read while nobody watches
files.py   the file behind what is seen: its content, what the manual says of it, and writing a ctl
serving.py the command: the socket, the URL, the end
consoles.py  a console: what it says, and typing
app.py     what is asked and answered: ASGI, no framework
static/    the page: HTML, CSS and JavaScript as they are, no build

hypercorn's trio worker serves it inside our nursery (the extra `web`).
"""
