// Package infra brings the machines of a lab into being with Terraform.
//
// The configuration is the user's own, in terraform/ of the workspace; this
// package runs it so that what is applied is exactly what was shown: Plan saves
// the plan and turns it into changes, Apply applies that file. Between the two
// stands a guard that does not rely on the configuration: a plan that would
// replace or destroy a machine its settings still want is refused.
//
// The same commands work by hand; Env gives what they need.
package infra
