"""The guest's network: links, addresses, routes and neighbours by rtnetlink, packet filters by iptables."""
