
	core.readÿ