// Balances of bank accounts in memory, built from the beginning of the topic at each start: franz-go and hamba/avro.
//
//	go run . TOPIC [--until-end]
//
// For a read model that lasts, keep the offsets and each stream's version and id in its database, and write them in the
// transaction that applies the events.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	model := newModel(os.Getenv("ANNALS_REGISTRY_URL"))
	if err := read(context.Background(), os.Args[1], slices.Contains(os.Args[2:], "--until-end"), model); err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"balances": model.cents}); err != nil {
		log.Fatal(err)
	}
}

func read(ctx context.Context, topic string, untilEnd bool, model *model) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("ANNALS_KAFKA")),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// The default is ReadUncommitted: records of aborted transactions would be read, and the events again.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers of transactions are offsets, too: with them, the last one before the end is seen.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	behind := map[int32]bool{}
	for {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		applied := 0
		var failed error
		fetches.EachPartition(func(partition kgo.FetchTopicPartition) {
			for _, record := range partition.Records {
				isNew, err := take(model, record)
				if err != nil && failed == nil {
					failed = fmt.Errorf("partition %d, offset %d: %w", record.Partition, record.Offset, err)
				}
				if isNew {
					applied++
				}
				behind[partition.Partition] = record.Offset+1 < partition.LastStableOffset
			}
		})
		if failed != nil {
			return failed
		}
		if applied > 0 {
			fmt.Println("applied", applied)
		}
		if untilEnd && reachedEnd(ctx, client, topic, behind) {
			return nil
		}
	}
}

// take applies a record, if it is an event that was not applied before.
func take(model *model, record *kgo.Record) (bool, error) {
	headers := map[string]string{}
	// Where a name is there twice, the last one is the contract's.
	for _, header := range record.Headers {
		headers[header.Key] = string(header.Value)
	}
	version, isEvent := headers["ce_streamversion"]
	// A tombstone, a test message, another producer's record.
	if record.Attrs.IsControl() || record.Value == nil || !isEvent {
		return false, nil
	}
	number, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return false, err
	}
	// Named where it is not the version before: events between are never published.
	previous := number - 1
	if named, isNamed := headers["ce_previousversion"]; isNamed {
		if previous, err = strconv.ParseInt(named, 10, 64); err != nil {
			return false, err
		}
	}
	stream := string(record.Key)
	isNew, err := model.isNew(stream, number, previous, headers["ce_id"])
	if err != nil || !isNew {
		return false, err
	}
	return true, model.apply(stream, record.Value)
}
