package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A server is a stage that takes things in until its context ends.
type server struct {
	name string
	run  func(context.Context) error
}

// run starts every stage, and stops them from the devices down: the front
// ends and the API, then the batching stage once all it took is attached, then
// what it works with. intake ends with ctx; the work that was taken in ends by
// itself, or after drain, or when now is closed. A stage that fails ends all
// others at once.
func (s *stages) run(ctx context.Context, now <-chan struct{}, drain time.Duration, log *slog.Logger) error {
	g, failed := errgroup.WithContext(context.Background())
	intake, endIntake := context.WithCancel(failed)
	work, endWork := context.WithCancel(failed)
	below, endBelow := context.WithCancel(failed)
	defer endIntake()
	defer endWork()
	defer endBelow()

	var fronts sync.WaitGroup
	for _, f := range s.servers() {
		fronts.Add(1)
		g.Go(func() error {
			defer fronts.Done()
			if err := f.run(intake); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			if intake.Err() == nil {
				return fmt.Errorf("%s stopped by itself", f.name)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer endBelow()
		return s.batching.Run(work)
	})
	for _, run := range s.below() {
		g.Go(func() error { return run(below) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			log.Info("stopping; intake ends, what was acknowledged is attached", "drain", drain)
		case <-failed.Done():
		}
		endIntake()
		fronts.Wait()
		s.batching.CloseIntake()
		return nil
	})
	g.Go(func() error {
		defer endWork()
		select {
		case <-ctx.Done():
		case <-failed.Done():
			return nil
		}
		timer := time.NewTimer(drain)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-now:
		case <-below.Done():
		}
		return nil
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func duration(d Duration) time.Duration { return time.Duration(d) }
