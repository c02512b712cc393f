"""etcd v3 through its JSON gateway: what several machines keep together.

address.py  which members, as whom, with which certificate
client.py   one call, answered by any member that can
records.py  keys and values as etcd's JSON has them, read at one door
mirror.py   what is below a prefix, here, as it changes
session.py  this program as the others see it: there, or gone
"""
