// Package release gets what K3s publishes, by version: its binaries, its image
// bundles, and which version a channel stands for. Nothing is kept that does not
// have the digest it must have: the one in k3lab.lock, else the one the release
// publishes.
//
// Downloads are made with net/http. The libraries for it were looked at: one
// knows no timeout but for the whole download, which breaks slow lines; the others
// bring archives, git and cloud SDKs along.
package release
