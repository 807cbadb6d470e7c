# make run      start the server on port 6001
# make test     install what the tests need and run all of them, race detector on
# make lint     formatting, vet, staticcheck, builds for other systems
# make vuln     known vulnerabilities of the dependencies
# make fuzz     every fuzz test for FUZZTIME
# make bench    the benchmarks of the packages
# make targets  measure our performance targets, about an hour (docs/benchmarks.md)
# make build    bin/sockudo

GO          ?= go
FUZZTIME    ?= 10s
SEEDS       ?= 50000
FROM        ?= 10000
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK  = golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: run build test lint vuln chaos fuzz bench targets

run:
	CGO_ENABLED=0 $(GO) run ./cmd/sockudo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/sockudo ./cmd/sockudo

test:
	test/run $(GO)

lint:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "not formatted: $$files"; exit 1; fi
	$(GO) mod verify
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	GOOS=darwin $(GO) build -o /dev/null ./cmd/sockudo
	GOOS=windows $(GO) build -o /dev/null ./cmd/sockudo

vuln:
	test/vuln $(GO) $(GOVULNCHECK)

chaos:
	test/services run $(GO) test -race -timeout 30m -count=1 -v -run TestScale ./internal/e2e/processes -scale.full
	$(GO) test -timeout 0 -count=1 -v -run TestSimulation ./internal/cluster -sim.from $(FROM) -sim.seeds $(SEEDS)

fuzz:
	test/fuzz $(GO) $(FUZZTIME)

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

targets:
	docs/benchmarks/run
