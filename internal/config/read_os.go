package config

import (
	"time"
	_ "time/tzdata" // so that names of time zones are known on every computer
)

func (c *checker) operatingSystem(o object) OS {
	system := OS{
		Timezone:           o.text("timezone", "Etc/UTC"),
		Packages:           o.strings("packages"),
		UnattendedUpgrades: o.bool("unattended_upgrades", true),
		JournaldMaxMiB:     o.int("journald_max_mib", 500, 16, 1<<20),
		Banner:             o.text("banner", ""),
	}
	if !isTimezone(system.Timezone) {
		c.errorAt(o.key+".timezone", "write a name such as Europe/Zurich", "%q is not a time zone", system.Timezone)
	}
	for i, name := range system.Packages {
		if !packageName.MatchString(name) {
			c.errorAt(indexed(o.key+".packages", i), "write the package's name alone", "%q is not a Debian package", name)
		}
	}
	return system
}

func isTimezone(name string) bool {
	if !timezone.MatchString(name) || name == "Local" { // which Go takes for the computer's own
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}
