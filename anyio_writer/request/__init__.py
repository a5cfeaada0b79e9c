"""What goes out: the parameters of a request, their check, and the JSON body."""
