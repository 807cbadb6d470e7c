// Package processes holds tests of clusters as they are run: three processes of
// the server as it is shipped, and a real broker. Each test counts every message
// that was sent, and says what became of it.
package processes
