// Package apps keeps the applications of a workspace in the cluster as their
// files say. Helm renders and records them, so helm list and helm history work by
// hand; what Helm's SDK does not do is done here: showing what would change,
// bringing CRDs up to date, waiting for health, ending when it is told to.
//
// An app is a folder. It becomes one or two releases: its chart, and the plain
// objects beside the chart, which need what the chart brings. A release is
//   - planned: rendered, and each object compared by an apply that is not persisted;
//   - applied: only if something differs, then awaited until it is healthy, else
//     rolled back to the last revision that was.
package apps
