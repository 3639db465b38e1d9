package fleet

// BuiltIn is builtIn, for tests with another file system.
var BuiltIn = builtIn
