"""What the tests share: cubes, networks, servers, clusters, and strategies that draw them."""
