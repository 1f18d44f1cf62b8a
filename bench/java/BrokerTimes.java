import java.util.List;
import java.util.Set;
import java.util.TreeSet;

import javax.management.MBeanServerConnection;
import javax.management.ObjectName;
import javax.management.remote.JMXConnector;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;

import com.sun.tools.attach.VirtualMachine;
import com.sun.tools.attach.VirtualMachineDescriptor;

/**
 * Prints the times of the one Kafka broker of this machine since its start, a line each: what, how often, and the mean
 * in milliseconds, separated by tabs. Kafka's histograms keep the sum of all values: the means of two moments give the
 * mean between them. Reads them over JMX by attaching to the broker's process, which needs no option of the broker.
 */
public final class BrokerTimes {
    private static final List<String> REQUESTS =
        List.of("Produce", "AddPartitionsToTxn", "EndTxn", "WriteTxnMarkers", "FetchConsumer");
    private static final List<String> PARTS = List.of(
        "TotalTimeMs", "RequestQueueTimeMs", "LocalTimeMs", "RemoteTimeMs", "ResponseQueueTimeMs", "ResponseSendTimeMs");

    public static void main(String[] arguments) throws Exception {
        VirtualMachine broker = VirtualMachine.attach(onlyBroker());
        JMXServiceURL url = new JMXServiceURL(broker.startLocalManagementAgent());
        try (JMXConnector connector = JMXConnectorFactory.connect(url)) {
            MBeanServerConnection beans = connector.getMBeanServerConnection();
            for (String request : REQUESTS) {
                for (String part : PARTS) {
                    print(beans, request + " " + part,
                        "kafka.network:type=RequestMetrics,name=" + part + ",request=" + request);
                }
            }
            print(beans, "VerificationTimeMs", "kafka.server:type=AddPartitionsToTxnManager,name=VerificationTimeMs");
        } finally {
            broker.detach();
        }
    }

    private static VirtualMachineDescriptor onlyBroker() {
        List<VirtualMachineDescriptor> brokers = VirtualMachine.list().stream()
            .filter(machine -> machine.displayName().startsWith("kafka.Kafka"))
            .toList();
        if (brokers.size() != 1) {
            throw new IllegalStateException(brokers.size() + " Kafka brokers run on this machine, and one is wanted");
        }
        return brokers.get(0);
    }

    /** The sum over the names that match: some have a further key, such as the version of the request. */
    private static void print(MBeanServerConnection beans, String what, String name) throws Exception {
        Set<ObjectName> names = new TreeSet<>(beans.queryNames(new ObjectName(name + ",*"), null));
        long count = 0;
        double sum = 0;
        for (ObjectName each : names) {
            long of = ((Number) beans.getAttribute(each, "Count")).longValue();
            count += of;
            sum += of * ((Number) beans.getAttribute(each, "Mean")).doubleValue();
        }
        System.out.println(what + "\t" + count + "\t" + (count == 0 ? 0 : sum / count));
    }
}
