// What the recipe `go` promises: the compiler, its library, and a C compiler for cgo.
package main

// static int twice(int n) { return 2 * n; }
import "C"

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

func main() {
	var sum sync.Map
	var wait sync.WaitGroup
	for n := 0; n < 10; n++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			sum.Store(n, int(C.twice(C.int(n))))
		}(n)
	}
	wait.Wait()
	total := 0
	sum.Range(func(_, n any) bool { total += n.(int); return true })
	git, err := exec.Command("git", "--version").Output()
	if total != 90 || err != nil {
		panic(fmt.Sprint(total, err))
	}
	fmt.Printf("ok: %s with cgo, %s\n", strings.Replace(runtime.Version(), "go", "Go ", 1), strings.TrimSpace(string(git)))
}
