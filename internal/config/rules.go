package config

// rule is a check that looks at more than one value. It runs only when the files
// it needs could be read, so that one broken file is one problem.
type rule struct {
	needs []string
	check func(*checker, *Lab)
}

func rules() []rule {
	nodes := []string{nodesFile}
	placed := []string{nodesFile, proxmoxFile}
	addressed := []string{nodesFile, networkFile}
	return []rule{
		{nodes, (*checker).uniqueMACs},
		{nodes, (*checker).uniqueDisks},
		{nodes, (*checker).ballooning},
		{nodes, (*checker).metal},
		{nodes, (*checker).quorum},
		{nodes, (*checker).schedulable},
		{placed, (*checker).placement},
		{placed, (*checker).spread},
		{placed, (*checker).memory},
		{placed, (*checker).vmids},
		{placed, (*checker).templates},
		{addressed, (*checker).subnet},
		{addressed, (*checker).uniqueAddresses},
		{[]string{nodesFile, networkFile, proxmoxFile}, (*checker).virtualAddress},
		{[]string{nodesFile, networkFile, proxmoxFile}, (*checker).addressRanges},
		{[]string{networkFile}, (*checker).searchDomain},
		{[]string{networkFile, platformFile}, (*checker).disjointNetworks},
		{[]string{nodesFile, platformFile}, (*checker).podNetworkSize},
		{[]string{nodesFile, networkFile, platformFile}, (*checker).oneSegment},
		{[]string{platformFile}, (*checker).hardenable},
		{[]string{platformFile}, (*checker).rootLogin},
		{nodes, (*checker).adopted},
	}
}

// judge runs every rule on what was read.
func (c *checker) judge(lab *Lab, read map[string]*node) {
	for _, r := range rules() {
		ready := true
		for _, file := range r.needs {
			ready = ready && read[file] != nil
		}
		if ready {
			r.check(c, lab)
		}
	}
}

func machineKey(m *Machine, setting string) string {
	return stem(nodesFile) + ".machines." + m.Name + "." + setting
}

func enabled(lab *Lab) []*Machine {
	var out []*Machine
	for _, m := range lab.Machines {
		if m.Enabled {
			out = append(out, m)
		}
	}
	return out
}
