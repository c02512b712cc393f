"""What comes back when a server comes back: which requests may be said again, how a file is opened again, and what cannot be had again.

Pure: nothing here waits, or knows a connection. It is used in the composer towards servers, and in the process that holds a v9fs mount, towards the
composer.
"""
